"""The application without a window.

What the user wants is one evented `SessionState` and, for every object, its `Marks`. `resolve` turns them
into a frozen order or the reason why nothing can run. `Session` gives orders to one `InferenceThread`,
keeps what comes back, writes the journal and can undo. It needs neither napari nor Qt: a window hands in
a function that carries a call to its own thread.
"""
