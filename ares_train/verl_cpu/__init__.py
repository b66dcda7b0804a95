"""verl on a CPU, for tests and laptops: platform, FSDP2 engines and the rollout engine ``hf_cpu``.

Active where ``VERL_PLATFORM=cpu`` (see ares_train.plugin). Everything else of verl runs unchanged: Ray worker groups,
sharding over gloo, checkpoints, agent loops, reward loops and both trainers.
"""
