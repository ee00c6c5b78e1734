"""The Gradio interface: shows artefacts and queues jobs, computes nothing. The only importer of gradio."""
