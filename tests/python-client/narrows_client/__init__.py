"""A client of wire/PROTOCOL.md in Python, written from the document alone. It is for tests, and can break every rule."""
