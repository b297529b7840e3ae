"""Prints and draws a comparison of methods; `alphafuse.evaluation.method_comparison` computes it."""
