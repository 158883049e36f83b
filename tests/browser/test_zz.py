def test_x(demo, visit):
    page = visit(demo.url); page.wait_for_timeout(1500); page.screenshot(path="/tmp/appdev/tiny.png")
    print(page.get_by_text("Examples").locator("xpath=..").evaluate("e=>e.outerHTML"))
    assert page
