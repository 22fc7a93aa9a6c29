"""Tests of the feature file."""
