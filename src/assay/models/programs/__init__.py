"""Programs in files: graphs of operators that were exported from some framework, run and differentiated in torch."""
