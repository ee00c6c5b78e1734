"""The Gradio interface. The only package that imports gradio; it shows artefacts and queues jobs, and computes nothing."""
