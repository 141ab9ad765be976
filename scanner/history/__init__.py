"""The history of findings: what is new tonight, what is still there, and what is proven to be gone.

lifecycle.py compares, recorder.py gathers what one scan has seen and looked at, store.py keeps it in SQLite.
"""
