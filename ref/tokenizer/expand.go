package tokenizer

import "fmt"

// maxExpanded bounds the image tokens of one prompt. The model has a few thousand positions.
const maxExpanded = 1 << 24

// ExpandImages puts as many image tokens in place of each image token as the image at the same place in order needs.
//
// transformers expands the text instead, "<image>" to N times "<image>", and then makes ids of it. Both give the same ids
// for every N > 0, because an added token is found without regard to its neighbours and what stands around the run is cut
// at the same places. Load refuses an image token for which that would not hold.
func ExpandImages(ids []int, imageToken int, counts []int) ([]int, error) {
	places, total := 0, len(ids)
	for _, id := range ids {
		if id == imageToken {
			places++
		}
	}
	if places != len(counts) {
		return nil, fmt.Errorf("tokenizer: %d image tokens (id %d) in the prompt, but %d images", places, imageToken, len(counts))
	}
	for i, n := range counts {
		if n < 1 || n > maxExpanded || total > maxExpanded {
			return nil, fmt.Errorf("tokenizer: image %d of %d takes %d image tokens, want 1 to %d in all", i+1, len(counts), n, maxExpanded)
		}
		total += n - 1
	}
	out := make([]int, 0, total)
	next := 0
	for _, id := range ids {
		if id != imageToken {
			out = append(out, id)
			continue
		}
		for range counts[next] {
			out = append(out, id)
		}
		next++
	}
	return out, nil
}
