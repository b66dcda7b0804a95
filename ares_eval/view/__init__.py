"""A local web page over run folders: filter a hundred thousand records, open one, see its tokens' entropy.

    index     a columnar index of a run's records, made once and kept beside the run; no texts in it
    query     filters, pages and counts over indexes, by DuckDB
    sample    one record with its prompt, its trace and how it was judged
    pictures  the pictures of a question, found again through its task
    server    the routes; serves this machine only unless told otherwise

Everything that a model, a server or a dataset wrote is sent as JSON and shown as text. Needs the extra [report].
"""
