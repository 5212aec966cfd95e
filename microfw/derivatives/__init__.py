"""Derivatives that use ops: Jacobians, Hessians, and checkpoints, which recompute a part of the graph in backward."""
