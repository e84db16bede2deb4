package replay_test

import (
	"fmt"
	"testing"

	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/shapes"
)

// Nodes of the scenarios, one or more of each kind.
var (
	nodePatch      = shapes.VisionTower + ".embeddings.patch_embedding"
	nodeEmbeddings = shapes.VisionTower + ".embeddings"
	nodeLayerNorm  = shapes.VisionLayer(0) + ".layer_norm1"
	nodeFC1        = shapes.VisionLayer(0) + ".mlp.fc1"
	nodeFC2        = shapes.VisionLayer(0) + ".mlp.fc2"
	nodeVScores    = shapes.VisionLayer(0) + ".self_attn.scores"
	nodeVProbs     = shapes.VisionLayer(0) + ".self_attn.probs"
	nodeVContext   = shapes.VisionLayer(0) + ".self_attn.context"
	nodeQuickGELU  = shapes.VisionLayer(0) + ".mlp.activation_fn"
	nodeAdd        = shapes.VisionLayer(0) + ".residual_attn"
	nodeGELU       = shapes.Projector + ".act"
	nodeEmbed      = shapes.TextModel + ".embed_tokens"
	nodeRMS        = shapes.TextLayer(0) + ".input_layernorm"
	nodeRope       = shapes.TextLayer(0) + ".self_attn.rope_q"
	nodeScores     = shapes.TextLayer(0) + ".self_attn.scores"
	nodeProbs      = shapes.TextLayer(0) + ".self_attn.probs"
	nodeContext    = shapes.TextLayer(0) + ".self_attn.context"
	nodeSiLU       = shapes.TextLayer(0) + ".mlp.act_fn"
	nodeMul        = shapes.TextLayer(0) + ".mlp.gated"
	nodeDown       = shapes.TextLayer(0) + ".mlp.down_proj"
)

func allNodes() []string {
	return []string{nodePatch, nodeEmbeddings, nodeLayerNorm, nodeFC2, nodeVScores, nodeVProbs, nodeVContext, nodeQuickGELU, nodeAdd, nodeGELU,
		nodeEmbed, nodeRMS, shapes.NodeCos, shapes.NodeSin, nodeRope, nodeScores, nodeProbs, nodeContext, nodeSiLU, nodeMul, nodeDown}
}

func TestExplore(t *testing.T) {
	worst := map[string]float64{}
	note := map[string]string{}
	for seed := range uint64(20) {
		for _, node := range allNodes() {
			for _, class := range compare.Classes() {
				for _, style := range styles() {
					s := newScenario(t, tinyWidths(), node, class, style, seed)
					for _, k := range rightKernels() {
						r := judge(t, s, k)
						key := fmt.Sprintf("%-10s %-4s", s.node.Kind, class)
						if r.Ratio > worst[key] {
							worst[key] = r.Ratio
							note[key] = fmt.Sprintf("%s | %s | %s", style, k.name, r)
						}
					}
				}
			}
		}
	}
	for k, v := range worst {
		t.Logf("%s %.3f %s", k, v, note[k])
	}
}
