"""A study to read: Markdown, HTML, plots, tables as CSV and LaTeX, and the error browser."""
