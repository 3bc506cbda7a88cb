"""The HTML, CSS and JavaScript that `explorer.py` puts together to the page."""
