package conformance

import (
	"strings"

	"github.com/llavaref/llavaref/shapes"
)

// The stages of the model, in the order of execution.
const (
	StageVision    = "vision"    // the tower, up to the features that are selected from it
	StageProjector = "projector" //
	StagePacking   = "packing"   // tiles to rows of image features; LLaVA-1.6 only
	StageMerge     = "merge"     // token embeddings, and image rows in the places of image tokens
	StageDecoder   = "decoder"   // rotary table, layers, final norm
	StageLogits    = "logits"    //
)

// The stages of what lies around the model.
const (
	StageInventory     = "inventory"     // the engine's list of parameters
	StagePreprocessing = "preprocessing" // images to pixels
	StageTokens        = "tokens"        // a conversation to ids, image tokens included
	StageGeneration    = "generation"    // the ids that are chosen
)

// EndToEndStages lists the stages of an end-to-end case.
func EndToEndStages() []string {
	return []string{StageInventory, StagePreprocessing, StageTokens, StageGeneration}
}

// Stages lists the stages of the model in the order of execution.
func Stages() []string {
	return []string{StageVision, StageProjector, StagePacking, StageMerge, StageDecoder, StageLogits}
}

// StageOf is the stage of a node, by its name.
func StageOf(node string) string {
	switch {
	case strings.HasPrefix(node, shapes.VisionTower+"."), node == shapes.NodeSelect:
		return StageVision
	case strings.HasPrefix(node, shapes.Projector+"."):
		return StageProjector
	case node == shapes.NodePack:
		return StagePacking
	case node == shapes.NodeMerge, node == shapes.TextModel+".embed_tokens":
		return StageMerge
	case node == shapes.LMHead:
		return StageLogits
	}
	return StageDecoder
}
