"""Lets pip read setup.cfg, where all metadata live."""

from setuptools import setup

setup()
