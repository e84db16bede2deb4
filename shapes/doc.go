// Package shapes holds the nouns of LLaVA: its configuration, its parameters, the graph of its nodes,
// and the names that other worlds give to both. It computes nothing and opens no file.
//
// One legend of letters serves the whole project, shapes in comments included:
//
//	N   tiles, over all images of the prompt
//	P   patches along one side of a tile, image_size / patch_size
//	S   vision positions, 1 + P*P: the class token, then the patches row by row
//	D   vision width (vision_config.hidden_size)
//	H   attention heads; Dh the width of one
//	F   MLP width (intermediate_size)
//	R   rows of packed image features, one for each image token of the prompt
//	T   text positions of the prompt, image rows included
//	C   text width (text_config.hidden_size)
//	K   key and value heads of the text model, H/K query heads share one
//	L   key positions: T, and those that a cache holds already
//	V   vocabulary
//	G   a tile grid, Size{H: rows, W: columns}
//
// Sizes of pixels, tiles and grids are Size{H, W}, rows first, everywhere.
package shapes
