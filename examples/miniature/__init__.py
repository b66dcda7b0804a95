"""The claim in miniature: GRPO, a length penalty and AEPO on a 0.35 M-parameter model that thinks in tokens, on a CPU.

The loop is pure PyTorch; everything that AEPO adds comes from `ares_train.aepo`, the same functions that run in verl.
`python -m examples.miniature --help` is the whole interface; `results/miniature/README.md` says what came out.

    vocabulary  what a token is            sample    answers with a key-value cache      arms      what is compared
    task        what a task must offer     sft       the starting checkpoint             study     which runs, resumable
    task_search, task_chain                rl        one run of reinforcement learning   results   tables and intervals
    model       the language model         evaluate  one checkpoint on held-out questions   plots
"""
