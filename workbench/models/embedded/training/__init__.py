"""How the embedded model was trained: its clips, its stages, its saved state and its measures.

Training takes its evaluation of finished clips as a callback; it knows nothing of the evaluator.
"""
