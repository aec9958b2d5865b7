"""Sweeps: many jobs of one command, their ledger, the search with Optuna."""
