"""Reinforcement learning on verl's V1 trainer: AEPO, GRPO and DAPO, through verl's own extension points."""
