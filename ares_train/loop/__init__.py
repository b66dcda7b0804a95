"""From a saved checkpoint to a score: while training goes on, and without the trainer's waiting for it.

    trainer:  callback -> queue                        a pin and a job for each checkpoint
    watcher:  queue -> evaluate_checkpoint -> queue    merge, serve, `ares-eval`, gate, ``eval/step_N.json``
    both:     afterwards (trackers, best, weights), stop file

Everything passes through files below ``RUN/eval``; docs/loop.md lists them. Either side may die at any moment.
"""
