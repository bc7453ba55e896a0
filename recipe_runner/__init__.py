"""Runs each recipe once, alone, on a named machine, and keeps the run: pages, notebooks and tables are views of runs."""
