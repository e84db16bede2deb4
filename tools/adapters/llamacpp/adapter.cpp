// Runs llama.cpp on an exported case and dumps the nodes of its graphs (docs/dump-format.md, naming llama.cpp).
//
//     llavaref case export --case photo-1x3 --out case --gguf
//     adapter case/gguf case dump
//     llavaref check --engine dir:dump --case photo-1x3
//
// A text goes through the decoder. Of a case with images the tower and the projector are run, tile by tile on the case's own
// pixels, through mtmd's debugging entry: how llama.cpp cuts, packs and merges is not what LLaVA-1.6 does, so the prompt ends there.
//
// Written for the sources in PyPI's llama-cpp-python 0.3.36; build.sh builds it.

#include "ggml-backend.h"
#include "ggml.h"
#include "llama.h"
#include "mtmd-debug.h"
#include "mtmd.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace fs = std::filesystem;

[[noreturn]] static void die(const std::string & why) {
    fprintf(stderr, "adapter: %s\n", why.c_str());
    exit(1);
}

// readNpy reads a version 1.0 .npy file of the given dtype, as the export writes it.
static std::vector<char> readNpy(const fs::path & path, const char * dtype, std::vector<size_t> & shape) {
    std::ifstream in(path, std::ios::binary);
    std::vector<char> all((std::istreambuf_iterator<char>(in)), {});
    if (all.size() < 10 || memcmp(all.data(), "\x93NUMPY\x01\x00", 8) != 0) {
        die(path.string() + " is no .npy file of version 1.0");
    }
    const size_t length = (uint8_t) all[8] | (size_t) (uint8_t) all[9] << 8;
    if (all.size() < 10 + length) {
        die(path.string() + " is cut off");
    }
    const std::string header(all.data() + 10, length);
    if (header.find(dtype) == std::string::npos) {
        die(path.string() + ": want dtype " + dtype);
    }
    size_t at = header.find("'shape': (") + 10, values = 1;
    while (header[at] != ')') {
        char * end;
        const size_t n = strtoull(header.c_str() + at, &end, 10);
        if (end == header.c_str() + at) {
            at++;
            continue;
        }
        shape.push_back(n);
        values *= n;
        at = end - header.c_str();
    }
    const size_t item = dtype[2] - '0';
    if (all.size() != 10 + length + values * item) {
        die(path.string() + ": the size does not fit its shape");
    }
    return std::vector<char>(all.begin() + 10 + length, all.end());
}

static void writeNpy(const fs::path & path, const std::vector<int64_t> & shape, const std::vector<float> & data) {
    std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (";
    for (int64_t n : shape) {
        header += std::to_string(n) + ", ";
    }
    header += "), }";
    header.append(64 - (10 + header.size() + 1) % 64, ' ');
    header += '\n';
    std::ofstream out(path, std::ios::binary);
    const char length[2] = { (char) (header.size() & 0xff), (char) (header.size() >> 8) };
    out.write("\x93NUMPY\x01\x00", 8).write(length, 2).write(header.data(), header.size());
    out.write((const char *) data.data(), data.size() * sizeof(float));
    if (!out.flush()) {
        die("cannot write " + path.string());
    }
}

// Dump keeps what the callback is shown.
struct Dump {
    fs::path          folder;
    std::string       prefix, suffix; // "v." and "#TILE" of the tower
    std::set<std::string> seen;

    // name is what a node's array is called; empty if it is none. One name of ggml stands for several operations.
    std::string name(const ggml_tensor * t) const {
        const std::string own = t->name, stem = own.substr(0, own.find('-'));
        if (own.find(' ') != std::string::npos) { // "Kcur-0 (permuted)": a view of another one
            return "";
        }
        static const std::set<std::string> text = { "attn_norm", "kq", "kq_soft_max", "kqv_out", "attn_out", "ffn_inp", "ffn_norm", "ffn_gate", "ffn_up", "ffn_swiglu", "ffn_out", "l_out", "inp_embd", "result_norm", "result_output" };
        static const std::set<std::string> vision = { "pre_ln", "layer_inp_normed", "Qcur", "Kcur", "Vcur", "kqv_out", "attn_out", "ffn_inp", "ffn_inp_normed", "ffn_up_b", "ffn_gelu_quick", "ffn_out", "layer_out" };
        if (!prefix.empty()) {
            // The projector's nodes have no name of their own, but their weights do.
            for (const char * linear : { "mm.0", "mm.2" }) {
                if (t->op == GGML_OP_ADD && t->src[1] && std::string(t->src[1]->name) == std::string(linear) + ".bias") {
                    return linear;
                }
            }
            if (t->op == GGML_OP_UNARY && ggml_get_unary_op(t) == GGML_UNARY_OP_GELU) {
                return "mm.gelu";
            }
            return vision.count(stem) ? own : "";
        }
        if (stem == "Qcur" || stem == "Kcur" || stem == "Vcur") {
            return t->op == GGML_OP_MUL_MAT || t->op == GGML_OP_ROPE ? own + "." + ggml_op_name(t->op) : "";
        }
        return text.count(stem) ? own : "";
    }

    void put(const ggml_tensor * t) {
        const std::string base = name(t);
        if (base.empty() || t->type != GGML_TYPE_F32) {
            return;
        }
        const std::string file = prefix + base + suffix;
        if (!seen.insert(file).second) {
            die(file + " is computed twice");
        }
        std::vector<float> values;
        values.reserve(ggml_nelements(t));
        for (int64_t i3 = 0; i3 < t->ne[3]; i3++) {
            for (int64_t i2 = 0; i2 < t->ne[2]; i2++) {
                for (int64_t i1 = 0; i1 < t->ne[1]; i1++) {
                    for (int64_t i0 = 0; i0 < t->ne[0]; i0++) {
                        values.push_back(*(const float *) ((const char *) t->data + i0 * t->nb[0] + i1 * t->nb[1] + i2 * t->nb[2] + i3 * t->nb[3]));
                    }
                }
            }
        }
        std::vector<int64_t> shape;
        for (int i = ggml_n_dims(t) - 1; i >= 0; i--) {
            shape.push_back(t->ne[i]);
        }
        if (!prefix.empty() && shape.size() == 3) { // heads side by side
            shape = { shape[0], shape[1] * shape[2] };
        }
        if (shape.size() == 1) { // one row
            shape.insert(shape.begin(), 1);
        }
        writeNpy(folder / (file + ".npy"), shape, values);
    }
};

static bool callback(ggml_tensor * t, bool ask, void * user) {
    if (!ask) {
        ((Dump *) user)->put(t);
    }
    return true; // every node, one by one: nothing is fused
}

static void runText(llama_model * model, const fs::path & folder, Dump & dump) {
    std::vector<size_t> shape, same;
    const auto ids = readNpy(folder / "input_ids.npy", "<i8", shape), positions = readNpy(folder / "position_ids.npy", "<i8", same);
    const int n = (int) shape.at(0);
    for (int i = 0; i < n; i++) {
        if (((const int64_t *) positions.data())[i] != i) {
            fprintf(stderr, "adapter: llama.cpp takes positions without gaps only\n");
            fs::remove(dump.folder);
            exit(77); // it has nothing for this case (docs/protocol.md)
        }
    }
    llama_context_params params = llama_context_default_params();
    params.n_ctx = params.n_batch = params.n_ubatch = n;
    params.n_threads = params.n_threads_batch = 1;
    params.type_k = params.type_v = GGML_TYPE_F32;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    params.cb_eval = callback;
    params.cb_eval_user_data = &dump;
    llama_context * context = llama_init_from_model(model, params);
    if (!context) {
        die("no context");
    }
    llama_batch batch = llama_batch_init(n, 0, 1);
    batch.n_tokens = n;
    for (int i = 0; i < n; i++) {
        batch.token[i] = (llama_token) ((const int64_t *) ids.data())[i];
        batch.pos[i] = (llama_pos) ((const int64_t *) positions.data())[i];
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i] = 1;
    }
    if (llama_decode(context, batch)) {
        die("llama_decode failed");
    }
    llama_batch_free(batch);
    llama_free(context);
}

static void runTower(llama_model * model, const fs::path & mmproj, const fs::path & folder, Dump & dump) {
    std::vector<size_t> shape;
    const auto pixels = readNpy(folder / "pixel_values.npy", "<f4", shape);
    mtmd_context_params params = mtmd_context_params_default();
    params.use_gpu = false;
    params.n_threads = 1;
    params.warmup = false;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    params.cb_eval = callback;
    params.cb_eval_user_data = &dump;
    mtmd_context * context = mtmd_init_from_file(mmproj.c_str(), model, params);
    if (!context) {
        die("mtmd does not take " + mmproj.string());
    }
    const size_t px = shape.at(2), area = px * px;
    for (size_t tile = 0; tile < shape[0]; tile++) { // the parts of NAME#PART
        const float * planes = (const float *) pixels.data() + tile * 3 * area;
        std::vector<std::vector<float>> rows(px);
        for (size_t y = 0; y < px; y++) {
            for (size_t x = 0; x < px; x++) {
                for (size_t c = 0; c < 3; c++) {
                    rows[y].push_back(planes[c * area + y * px + x]);
                }
            }
        }
        dump.prefix = "v.";
        dump.suffix = "#" + std::to_string(tile);
        mtmd_debug_encode_image(context, rows);
    }
    mtmd_free(context);
}

int main(int argc, char ** argv) {
    if (argc != 4) {
        die("want: adapter GGUF_FOLDER CASE_FOLDER OUT");
    }
    const fs::path gguf = argv[1], folder = argv[2], out = argv[3];
    if (!fs::create_directories(out)) {
        die(out.string() + " is there already");
    }
    llama_backend_init();
    llama_model_params params = llama_model_default_params();
    params.n_gpu_layers = 0;
    llama_model * model = llama_model_load_from_file((gguf / "model.gguf").c_str(), params);
    if (!model) {
        die("llama.cpp does not load " + (gguf / "model.gguf").string());
    }
    Dump dump;
    dump.folder = out;
    const bool images = fs::exists(folder / "pixel_values.npy");
    if (images) {
        runTower(model, gguf / "mmproj.gguf", folder, dump);
    } else {
        runText(model, folder, dump);
    }
    llama_model_free(model);
    std::ofstream manifest(out / "manifest.json");
    manifest << "{\n \"format\": 1,\n \"engine\": \"llama.cpp\",\n \"version\": \"llama-cpp-python 0.3.36\",\n \"class\": \"f32\",\n \"naming\": \"llama.cpp\",\n";
    if (images) { // ggml's im2col and its kernel are float16; the convolution itself is not shown
        manifest << " \"classes\": [{\"nodes\": \"vision_tower.vision_model.embeddings.patch_embedding\", \"class\": \"f16\"}],\n";
    }
    manifest << " \"map\": [\n"
             << "  {\"node\": \"multi_modal_projector.linear_1\", \"tensor\": \"v.mm.0#{part}\", \"join\": \"N\", \"axes\": \"S-1 C\"},\n"
             << "  {\"node\": \"multi_modal_projector.act\", \"tensor\": \"v.mm.gelu#{part}\", \"join\": \"N\", \"axes\": \"S-1 C\"},\n"
             << "  {\"node\": \"multi_modal_projector.linear_2\", \"tensor\": \"v.mm.2#{part}\", \"join\": \"N\", \"axes\": \"S-1 C\"}\n ]\n}\n";
    return manifest.flush() ? 0 : 1;
}
