"""What measures, here and on other devices: numpy and one engine only, on Python 3.8 too."""
