#include "frontends/nbd/negotiation.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "frontends/nbd/limits.h"

namespace nvmf::nbd {
namespace {

std::span<const std::byte> bytes_of(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void append(std::vector<std::byte>& out, std::span<const std::byte> bytes) {
  out.insert(out.end(), bytes.begin(), bytes.end());
}

template <class Message>
void append(std::vector<std::byte>& out, const Message& message) {
  std::array<std::byte, Message::kBytes> bytes;
  message.encode(bytes.data());
  append(out, std::span<const std::byte>(bytes));
}

// NBD strings are at most 4096 bytes; a subsystem's model may be anything, so cut, not refuse.
std::string_view cut(std::string_view text) {
  return text.substr(0, kNameBytesMax);
}

std::vector<std::byte> info_string(InfoType type, std::string_view text) {
  std::vector<std::byte> data(2);
  store_be16(data.data(), static_cast<std::uint16_t>(type));
  append(data, bytes_of(cut(text)));
  return data;
}

}  // namespace

void Negotiation::greet(Bytes& out) {
  append(out, Greeting{});
}

Negotiation::Outcome Negotiation::take(std::span<const std::byte> in, std::size_t& consumed,
                                       Bytes& out) {
  consumed = 0;
  if (!have_client_flags_) {
    if (in.size() < kClientFlagsBytes) return Outcome::more;
    consumed = kClientFlagsBytes;
    return take_client_flags(in.data());
  }
  if (skip_bytes_ > 0) {
    consumed = std::min<std::size_t>(in.size(), skip_bytes_);
    skip_bytes_ -= static_cast<std::uint32_t>(consumed);
    if (skip_bytes_ == 0 && skipped_ == Option::abort) return option({skipped_, 0}, {}, out);
    if (skip_bytes_ == 0) {
      refuse(out, skipped_, OptionReplyType::err_too_big, "The option's data is too long");
    }
    return Outcome::more;
  }
  if (in.size() < OptionHeader::kBytes) return Outcome::more;
  const auto header = OptionHeader::decode(in.data());
  if (!header) return broken("the client sent no option where one must be (bad magic)");
  if (header->length > kOptionSkipBytesMax) {
    return broken(fmt::format("the client announced an option of {} bytes", header->length));
  }
  if (header->length <= kOptionBytesMax && in.size() < OptionHeader::kBytes + header->length) {
    return Outcome::more;
  }
  if (++options_ > kOptionsMax) {
    return broken(fmt::format("the client sent more than {} options", kOptionsMax));
  }
  if (header->length > kOptionBytesMax) {
    // EXPORT_NAME cannot be answered with an error; no export has such a name.
    if (header->option == Option::export_name) return broken("the export name is too long");
    consumed = OptionHeader::kBytes;
    skip_bytes_ = header->length;
    skipped_ = header->option;
    return Outcome::more;
  }
  consumed = OptionHeader::kBytes + header->length;
  return option(*header, in.subspan(OptionHeader::kBytes, header->length), out);
}

Negotiation::Outcome Negotiation::take_client_flags(const std::byte* p) {
  // proto.md, "Client flags": a flag that we did not offer means disconnect. A client without
  // FIXED_NEWSTYLE may send EXPORT_NAME only; honouring more of it does no harm.
  const std::uint32_t flags = load_be32(p);
  if ((flags & ~std::uint32_t{kFixedNewstyle | kNoZeroes}) != 0) {
    return broken(fmt::format("the client set unknown handshake flags ({:#x})", flags));
  }
  send_zeroes_ = (flags & kNoZeroes) == 0;
  have_client_flags_ = true;
  return Outcome::more;
}

Negotiation::Outcome Negotiation::option(const OptionHeader& header,
                                         std::span<const std::byte> data, Bytes& out) {
  const auto wants_no_data = [&] {
    if (data.empty()) return true;
    refuse(out, header.option, OptionReplyType::err_invalid, "This option takes no data");
    return false;
  };
  switch (header.option) {
    case Option::export_name:
      return export_name(text_of(data), out);
    case Option::abort:
      reply(out, header.option, OptionReplyType::ack);
      reason_ = "the client ended the negotiation";
      return Outcome::finish;
    case Option::list:
      if (wants_no_data()) list(out);
      return Outcome::more;
    case Option::info:
    case Option::go:
      return info(header.option, data, out);
    case Option::structured_reply:
      if (wants_no_data()) structured_reply(out);
      return Outcome::more;
    case Option::extended_headers:
      if (wants_no_data()) extended_headers(out);
      return Outcome::more;
    case Option::list_meta_context:
    case Option::set_meta_context:
      contexts(header.option, data, out);
      return Outcome::more;
    case Option::starttls:
      if (wants_no_data()) {
        refuse(out, header.option, OptionReplyType::err_unsup, "This server does not speak TLS");
      }
      return Outcome::more;
    default:
      refuse(out, header.option, OptionReplyType::err_unsup, "This option is not supported");
      return Outcome::more;
  }
}

void Negotiation::structured_reply(Bytes& out) {
  if (agreed_.extended) {
    return refuse(out, Option::structured_reply, OptionReplyType::err_ext_header_reqd,
                  "Extended headers were agreed on already");
  }
  agreed_.structured = true;
  reply(out, Option::structured_reply, OptionReplyType::ack);
}

void Negotiation::extended_headers(Bytes& out) {
  if (agreed_.extended) {
    return refuse(out, Option::extended_headers, OptionReplyType::err_invalid,
                  "Extended headers were agreed on already");
  }
  agreed_.extended = true;
  agreed_.structured = true;
  reply(out, Option::extended_headers, OptionReplyType::ack);
}

std::uint16_t Negotiation::flags_of(const host::BlockDevice& device) const {
  std::uint16_t flags = transmission_flags(device.info(), agreed_.structured);
  if (agreed_.extended && allocation_of_ == &device) flags |= kBlockStatusPayload;
  return flags;
}

void Negotiation::choose(host::BlockDevice& device, std::uint16_t flags) {
  device_ = &device;
  flags_ = flags;
  agreed_.allocation = allocation_of_ == &device;
}

Negotiation::Outcome Negotiation::export_name(std::string_view name, Bytes& out) {
  if (agreed_.extended) {
    return broken("the client used EXPORT_NAME after it had agreed on extended headers");
  }
  host::BlockDevice* device = device_of(name, nullptr);
  if (device == nullptr) {
    // The option has no way to say no but to end the session.
    reason_ = fmt::format("the client asked for an export '{}' that does not exist", cut(name));
    return Outcome::finish;
  }
  choose(*device, flags_of(*device));
  append(out, ExportReply{device->info().size_bytes, flags_});
  if (send_zeroes_) out.resize(out.size() + kExportReplyZeroes);
  return Outcome::transmission;
}

Negotiation::Outcome Negotiation::info(Option option, std::span<const std::byte> data, Bytes& out) {
  const auto query = InfoQuery::decode(data);
  if (!query || query->name.size() > kNameBytesMax) {
    refuse(out, option, OptionReplyType::err_invalid, "The lengths inside the option are wrong");
    return Outcome::more;
  }
  const Export* found = nullptr;
  host::BlockDevice* device = device_of(query->name, &found);
  if (device == nullptr) {
    refuse(out, option, OptionReplyType::err_unknown, "There is no export of this name");
    return Outcome::more;
  }
  const host::BlockInfo& info = device->info();
  const std::uint16_t flags = flags_of(*device);

  std::array<std::byte, InfoExport::kBytes> about_export;
  InfoExport{info.size_bytes, flags}.encode(about_export.data());
  reply(out, option, OptionReplyType::info, about_export);
  // Unasked too: a client that did not ask may still profit, and a shorter minimum is refused
  // later.
  std::array<std::byte, InfoBlockSize::kBytes> about_blocks;
  block_size(info).encode(about_blocks.data());
  reply(out, option, OptionReplyType::info, about_blocks);
  if (query->wants(InfoType::name)) {
    reply(out, option, OptionReplyType::info, info_string(InfoType::name, found->names.front()));
  }
  if (query->wants(InfoType::description)) {
    reply(out, option, OptionReplyType::info, info_string(InfoType::description, info.description));
  }
  reply(out, option, OptionReplyType::ack);
  if (option == Option::info) return Outcome::more;
  choose(*device, flags);
  return Outcome::transmission;
}

void Negotiation::list(Bytes& out) const {
  for (const Export& e : exports_.all()) {
    if (!e.offered) continue;
    const std::string_view name = cut(e.names.front());
    const std::string_view description = cut(e.devices[reactor_]->info().description);
    Bytes data(4);
    store_be32(data.data(), static_cast<std::uint32_t>(name.size()));
    append(data, bytes_of(name));
    append(data, bytes_of(description));
    reply(out, Option::list, OptionReplyType::server, data);
  }
  reply(out, Option::list, OptionReplyType::ack);
}

/// One context is served, base:allocation. Queries for others select none, which is a success
/// (proto.md, NBD_OPT_LIST_META_CONTEXT). Each SET replaces what was selected, also one that fails.
void Negotiation::contexts(Option option, std::span<const std::byte> data, Bytes& out) {
  const bool lists = option == Option::list_meta_context;
  if (!lists) allocation_of_ = nullptr;
  const auto query = ContextQuery::decode(data);
  if (!query || query->name.size() > kNameBytesMax) {
    refuse(out, option, OptionReplyType::err_invalid, "The lengths inside the option are wrong");
  } else if (!agreed_.structured) {
    refuse(out, option, OptionReplyType::err_invalid, "Structured replies are needed first");
  } else if (const auto* device = device_of(query->name, nullptr); device == nullptr) {
    refuse(out, option, OptionReplyType::err_unknown, "There is no export of this name");
  } else {
    const bool any = lists && (query->queries == 0 || query->all_of_namespace);
    if (any || query->allocation) {
      Bytes context(4);
      store_be32(context.data(), lists ? 0 : kAllocationContextId);
      append(context, bytes_of(kAllocationContext));
      reply(out, option, OptionReplyType::meta_context, context);
      if (!lists) allocation_of_ = device;
    }
    reply(out, option, OptionReplyType::ack);
  }
}

Negotiation::Outcome Negotiation::broken(std::string reason) {
  reason_ = std::move(reason);
  return Outcome::broken;
}

void Negotiation::reply(Bytes& out, Option option, OptionReplyType type,
                        std::span<const std::byte> data) {
  append(out, OptionReplyHeader{option, type, static_cast<std::uint32_t>(data.size())});
  append(out, data);
}

void Negotiation::refuse(Bytes& out, Option option, OptionReplyType type,
                         std::string_view message) {
  reply(out, option, type, bytes_of(message));
}

host::BlockDevice* Negotiation::device_of(std::string_view name, const Export** found) const {
  const Export* e = exports_.find(name);
  if (e == nullptr) return nullptr;
  if (found != nullptr) *found = e;
  return e->devices[reactor_];
}

}  // namespace nvmf::nbd
