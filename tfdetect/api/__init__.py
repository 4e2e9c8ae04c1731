"""What one does with tfdetect, a file for each: the functions behind the commands and `import tfdetect`."""
