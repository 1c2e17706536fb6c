// The command line of the verbs that send I/O commands: read, write, compare, write-zeroes,
// write-uncor, verify, dsm, flush, and the two that pass through what the user composed. Names and
// letters are nvme-cli's; where these need a letter, an option for URIs has its long name only.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <limits>
#include <ranges>

#include "cli.h"
#include "nvme/explain.h"
#include "nvmf_io.h"

namespace nvmf::tools {

namespace {

constexpr std::uint64_t kPrinfoMax = 0xf;

std::uint64_t number_of(const std::string& names, const std::string& text, std::uint64_t most) {
  const auto value = nvme::parse_number(text);
  if (value && *value <= most) return *value;
  throw CLI::ValidationError(
      fmt::format("{} takes a number from 0 to {}, not {}", names, most, text));
}

template <typename T>
T& inner(T& value) {
  return value;
}
template <typename T>
T& inner(std::optional<T>& value) {
  return value.emplace();
}

/// A number as nvme-cli takes it, 0x and all, of as many bits as `value` has, or up to `most`.
template <typename Value>
void add_number(CLI::App& verb, const std::string& names, Value& value, const std::string& help,
                std::uint64_t most = std::numeric_limits<std::uint64_t>::max()) {
  verb.add_option_function<std::string>(
          names,
          [&value, names, most](const std::string& text) {
            auto& out = inner(value);
            using Number = std::remove_reference_t<decltype(out)>;
            const std::uint64_t limit =
                std::min<std::uint64_t>(most, std::numeric_limits<Number>::max());
            out = static_cast<Number>(number_of(names, text, limit));
          },
          help)
      ->type_name("N");
}

/// "8,16": numbers with commas between them.
template <typename Number>
void add_list(CLI::App& verb, const std::string& names, std::vector<Number>& values,
              const std::string& help) {
  verb.add_option_function<std::string>(
          names,
          [&values, names](const std::string& text) {
            values.clear();
            for (const auto part : std::views::split(text, ',')) {
              values.push_back(
                  static_cast<Number>(number_of(names, std::string(part.begin(), part.end()),
                                                std::numeric_limits<Number>::max())));
            }
          },
          help)
      ->type_name("LIST");
}

template <typename Words>
void add_namespace(CLI::App& verb, Words& words) {
  add_target(verb, words.target);
  add_namespace_id(verb, words.nsid, "The namespace, if the target names none");
}

void add_blocks(CLI::App& verb, BlockWords& words) {
  add_size(verb, "-s,--start-block", words.start_block, "The first block");
  add_number(verb, "-c,--block-count", words.block_count, "How many blocks, 0's based: 0 is one");
}

/// Bits of commands for blocks; the letter of the storage tag differs.
void add_block_bits(CLI::App& verb, BlockWords& words, const char* storage_tag) {
  verb.add_flag("-l,--limited-retry", words.limited_retry, "Set LR: try the media less often");
  verb.add_flag("-f,--force-unit-access", words.force_unit_access,
                "Set FUA: not from, or only to, a cache");
  add_number(verb, "-p,--prinfo", words.prinfo, "PRACT and PRCHK, 4 bits", kPrinfoMax);
  add_number(verb, "-r,--ref-tag", words.ref_tag, "Reference tag of protection information");
  add_number(verb, "-m,--app-tag-mask", words.app_tag_mask, "Mask of the application tag");
  add_number(verb, "-a,--app-tag", words.app_tag, "Application tag");
  add_size(verb, storage_tag, words.storage_tag, "Storage tag: refused");
  verb.add_flag("-C,--storage-tag-check", words.storage_tag_check, "Set STC");
}

void add_move(CLI::App& app, Chosen& chosen, const char* name, const char* help,
              nvme::NvmOpcode opcode) {
  auto* verb = app.add_subcommand(name, help);
  auto words = std::make_shared<BlockWords>();
  add_namespace(*verb, *words);
  add_blocks(*verb, *words);
  add_size(*verb, "-z,--data-size", words->data_bytes, "Bytes of data");
  add_size(*verb, "-y,--metadata-size", words->metadata_bytes, "Bytes of metadata: refused");
  const bool reads = opcode == nvme::NvmOpcode::read;
  verb->add_option("-d,--data", words->data,
                   reads ? "Where the data goes, else stdout" : "Where the data is, else stdin")
      ->type_name("FILE")
      ->check(not_empty);
  verb->add_option("-M,--metadata", words->metadata, "Metadata: refused")->type_name("FILE");
  add_block_bits(*verb, *words, "-g,--storage-tag");
  add_number(*verb, "-T,--dir-type", words->dir_type, "Directive type", kPrinfoMax);
  add_number(*verb, "-S,--dir-spec", words->dir_spec, "What the directive takes");
  add_number(*verb, "-D,--dsm", words->dsm, "How the blocks are used, 8 bits");
  verb->add_flag("-v,--show-command", words->show, "Show the command, and send it");
  verb->add_flag("-w,--dry-run", words->dry_run, "Show the command, do not send it");
  verb->add_flag("-t,--latency", words->latency, "Show how long it took");
  verb->add_flag_callback("--force", [] {}, "Accepted, without effect");
  add_temporary(*verb, words->temporary);
  verb->final_callback([&chosen, words, opcode] {
    chosen = [words, opcode] { return move_blocks(opcode, *words); };
  });
}

void add_treat(CLI::App& app, Chosen& chosen, const char* name, const char* help,
               nvme::NvmOpcode opcode) {
  auto* verb = app.add_subcommand(name, help);
  auto words = std::make_shared<BlockWords>();
  add_namespace(*verb, *words);
  add_blocks(*verb, *words);
  if (opcode == nvme::NvmOpcode::write_zeroes) {
    verb->add_flag("-d,--deac", words->deallocate, "Set DEAC: deallocate them if possible");
  }
  if (opcode != nvme::NvmOpcode::write_uncorrectable) {
    add_block_bits(*verb, *words, "-S,--storage-tag");
  }
  add_temporary(*verb, words->temporary);
  verb->final_callback([&chosen, words, opcode] {
    chosen = [words, opcode] { return treat_blocks(opcode, *words); };
  });
}

void add_dsm(CLI::App& app, Chosen& chosen) {
  constexpr std::uint32_t kIntegralRead = 1u << 0;
  constexpr std::uint32_t kIntegralWrite = 1u << 1;
  auto* verb = app.add_subcommand("dsm", "Say how ranges of blocks are used, or deallocate them");
  auto words = std::make_shared<DsmWords>();
  add_namespace(*verb, *words);
  add_list(*verb, "-a,--ctx-attrs", words->attributes, "Context attributes of each range");
  add_list(*verb, "-b,--blocks", words->blocks, "How many blocks each range has");
  add_list(*verb, "-s,--slbs", words->starts, "The first block of each range");
  const auto add_bit = [verb, words](const char* names, std::uint32_t bit, const char* help) {
    verb->add_flag_callback(names, [words, bit] { words->cdw11 |= bit; }, help);
  };
  add_bit("-d,--ad", nvme::kCdw11DsmDeallocate, "Deallocate them");
  add_bit("-w,--idw", kIntegralWrite, "They are one set of data for writes");
  add_bit("-r,--idr", kIntegralRead, "They are one set of data for reads");
  auto given = std::make_shared<std::optional<std::uint32_t>>();
  add_number(*verb, "-c,--cdw11", *given, "All attributes, instead of single ones");
  add_temporary(*verb, words->temporary);
  verb->final_callback([&chosen, words, given] {
    words->cdw11 = given->value_or(words->cdw11);
    chosen = [words] { return dsm(*words); };
  });
}

void add_flush(CLI::App& app, Chosen& chosen) {
  auto* verb = app.add_subcommand("flush", "Make the disk keep what was written to it");
  auto words = std::make_shared<FlushWords>();
  add_namespace(*verb, *words);
  add_temporary(*verb, words->temporary);
  verb->final_callback([&chosen, words] { chosen = [words] { return flush(*words); }; });
}

void add_dwords(CLI::App& verb, nvme::Sqe& sqe) {
  add_number(verb, "-2,--cdw2", sqe.cdw2, "Dword 2");
  add_number(verb, "-3,--cdw3", sqe.cdw3, "Dword 3");
  add_number(verb, "-4,--cdw10", sqe.cdw10, "Dword 10");
  add_number(verb, "-5,--cdw11", sqe.cdw11, "Dword 11");
  add_number(verb, "-6,--cdw12", sqe.cdw12, "Dword 12");
  add_number(verb, "-7,--cdw13", sqe.cdw13, "Dword 13");
  add_number(verb, "-8,--cdw14", sqe.cdw14, "Dword 14");
  add_number(verb, "-9,--cdw15", sqe.cdw15, "Dword 15");
}

void add_passthru(CLI::App& app, Chosen& chosen, const char* name, const char* help, bool admin) {
  auto* verb = app.add_subcommand(name, help);
  auto words = std::make_shared<PassthruWords>();
  words->admin = admin;
  add_target(*verb, words->target);
  auto opcode = std::make_shared<std::optional<std::uint8_t>>();
  add_number(*verb, "-o,--opcode", *opcode, "Opcode, which must be given");
  add_number(*verb, "-f,--flags", words->sqe.flags, "Byte 1 of the command");
  add_number(*verb, "-p,--prefill", words->prefill, "What the buffer has before");
  add_number(*verb, "-R,--rsvd", words->rsvd, "Shown, without effect");
  add_number(*verb, "-n,--namespace-id", words->sqe.nsid, "The namespace");
  add_number(*verb, "-l,--data-len", words->data_bytes, "Bytes of data");
  add_number(*verb, "-m,--metadata-len", words->metadata_bytes, "Bytes of metadata: refused");
  add_number(*verb, "-t,--timeout", words->timeout_ms, "Milliseconds that it may take");
  add_dwords(*verb, words->sqe);
  verb->add_option("-i,--input-file", words->file, "Where the data is, or goes")
      ->type_name("FILE")
      ->check(not_empty);
  verb->add_option("-M,--metadata", words->metadata, "Metadata: refused")->type_name("FILE");
  verb->add_flag("-b,--raw-binary", words->raw_binary, "Write the data as it is");
  verb->add_flag("-s,--show-command", words->show, "Show the command, and send it");
  verb->add_flag("-d,--dry-run", words->dry_run, "Show the command, do not send it");
  verb->add_flag("-r,--read", words->read, "Data comes from the controller");
  verb->add_flag("-w,--write", words->write, "Data goes to the controller");
  verb->add_flag("-T,--latency", words->latency, "Show how long it took");
  add_temporary(*verb, words->temporary);
  verb->final_callback([&chosen, words, opcode] {
    if (!*opcode) throw CLI::ValidationError("--opcode is missing: it says what command it is");
    words->sqe.opcode = **opcode;
    chosen = [words] { return passthru(*words); };
  });
}

}  // namespace

void add_io_verbs(CLI::App& app, Chosen& chosen) {
  using nvme::NvmOpcode;
  add_move(app, chosen, "read", "Read blocks", NvmOpcode::read);
  add_move(app, chosen, "write", "Write blocks", NvmOpcode::write);
  add_move(app, chosen, "compare", "Compare blocks with data", NvmOpcode::compare);
  add_treat(app, chosen, "write-zeroes", "Write zeroes to blocks", NvmOpcode::write_zeroes);
  add_treat(app, chosen, "write-uncor", "Make blocks unreadable until they are written",
            NvmOpcode::write_uncorrectable);
  add_treat(app, chosen, "verify", "Have the controller read blocks and check them",
            NvmOpcode::verify);
  add_dsm(app, chosen);
  add_flush(app, chosen);
  add_passthru(app, chosen, "admin-passthru", "Send an admin command", true);
  add_passthru(app, chosen, "io-passthru", "Send an I/O command", false);
}

}  // namespace nvmf::tools
