// Package export writes what an engine needs to run one prompt of a golden set, as files that any language reads:
//
//	DIR/README.txt         what to do with the rest
//	DIR/case.json          which set and case this is, and the files
//	DIR/model/             config.json and a safetensors checkpoint
//	DIR/input_ids.npy      int64 [T]
//	DIR/position_ids.npy   int64 [T]
//	DIR/pixel_values.npy   float32 [N, 3, px, px]; absent without an image
//	DIR/image_sizes.json   [[height, width], ...]
//	DIR/nodes.tsv          every node of the graph with its shape for this prompt
//	DIR/gguf/              model.gguf and mmproj.gguf, if they were asked for
//	DIR/images/            the pictures that the pixels were made of
package export
