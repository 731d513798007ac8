"""Reading and writing of images and videos, and drawing."""
