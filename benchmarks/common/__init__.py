"""Parts that several benchmarks share: groups of ranks, tables of figures, cases and exports that are made up."""
