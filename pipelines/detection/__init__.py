"""What the tasks that find things in images share."""
