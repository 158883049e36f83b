"""Where rows come from: formats, splits, examples, batches."""
