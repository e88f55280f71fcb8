"""Configs of PaddleDetection and PaddleX made into recipes."""
