"""Pure `keras.ops` functions of the published methods: no classes, no variables."""
