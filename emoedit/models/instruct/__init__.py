"""Image-editing pipelines of diffusers that follow an instruction in words."""
