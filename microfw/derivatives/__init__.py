"""Derivatives made of ops: Jacobians, Hessians, and checkpoints that compute a part again in backward."""
