"""What runs a model under a setting, frame by frame, and notes what each frame took."""
