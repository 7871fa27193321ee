"""The language: from the text of a hermes file to its jobs."""
