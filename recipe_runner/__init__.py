"""Runs each recipe once, alone, on a named machine, and keeps the run; pages and notebooks are views of runs."""
