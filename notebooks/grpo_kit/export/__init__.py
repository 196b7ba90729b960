"""How to take it away (chapter 07): `merge`, `gguf`, `gguf_file`, which checks one, `ollama`, `hub`, and
`llama_build`, which builds llama.cpp.

Unsloth's exporters do the work (`save_pretrained_merged`, `save_pretrained_gguf`); here is what stands around them.
"""
