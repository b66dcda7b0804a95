"""AdaCS: cold-start data whose response length follows difficulty, from questions to SFT files.

Stages in their order, each a module with ``run(config, work, note)``: ingest, sample, rate, lengths, select, write,
report. They meet only in files (layout.py names them, schemas.py types them, store.py keeps them resumable).
"""
