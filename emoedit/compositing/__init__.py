"""Compositors: how a change is put into the photograph, one file a part."""
