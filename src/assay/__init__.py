"""assay: put a classifier to the test. Train it, break it, see why."""
