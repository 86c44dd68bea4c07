"""The main job on real data, by itself: distillation in three steps, and word vectors."""
