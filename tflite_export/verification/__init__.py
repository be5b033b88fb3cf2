"""Does a file compute what its model computes?"""
