"""One picture at a time: look at it, break it, take it apart. What the browser app and ``assay look`` show.

Each view is a function of its inputs that knows nothing of browsers; :mod:`assay.app.layout` puts them on a page.
"""
