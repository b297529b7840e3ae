"""Prints and draws a comparison of methods; `alphafuse.evaluation.comparison.method_comparison` computes it."""
