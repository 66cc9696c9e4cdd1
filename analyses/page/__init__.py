"""A report as one HTML file: interactive figures made of the printed ones, tables, words."""
