"""Recipes become artifacts here: one module for each kind."""
