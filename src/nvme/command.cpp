#include "nvme/command.h"

#include <algorithm>

#include "nvme/endian.h"

namespace nvmf::nvme {

void Sqe::encode(std::span<std::byte, kSqeBytes> out) const {
  std::byte* p = out.data();
  store_u8(p, opcode);
  store_u8(p + 1, flags);
  store_le16(p + 2, cid);
  store_le32(p + 4, nsid);
  store_le32(p + 8, cdw2);
  store_le32(p + 12, cdw3);
  store_le64(p + 16, mptr);
  store_le64(p + 24, sgl.address);
  store_le32(p + 32, sgl.length_bytes);
  std::fill(p + 36, p + 39, std::byte{0});
  store_u8(p + 39, sgl.type);
  store_le32(p + 40, cdw10);
  store_le32(p + 44, cdw11);
  store_le32(p + 48, cdw12);
  store_le32(p + 52, cdw13);
  store_le32(p + 56, cdw14);
  store_le32(p + 60, cdw15);
}

Sqe Sqe::decode(std::span<const std::byte, kSqeBytes> in) {
  const std::byte* p = in.data();
  Sqe s;
  s.opcode = load_u8(p);
  s.flags = load_u8(p + 1);
  s.cid = load_le16(p + 2);
  s.nsid = load_le32(p + 4);
  s.cdw2 = load_le32(p + 8);
  s.cdw3 = load_le32(p + 12);
  s.mptr = load_le64(p + 16);
  s.sgl.address = load_le64(p + 24);
  s.sgl.length_bytes = load_le32(p + 32);
  s.sgl.type = load_u8(p + 39);
  s.cdw10 = load_le32(p + 40);
  s.cdw11 = load_le32(p + 44);
  s.cdw12 = load_le32(p + 48);
  s.cdw13 = load_le32(p + 52);
  s.cdw14 = load_le32(p + 56);
  s.cdw15 = load_le32(p + 60);
  return s;
}

void Cqe::encode(std::span<std::byte, kCqeBytes> out) const {
  std::byte* p = out.data();
  store_le64(p, result);
  store_le16(p + 8, sqhd);
  store_le16(p + 10, sqid);
  store_le16(p + 12, cid);
  store_le16(p + 14, status.encode());
}

Cqe Cqe::decode(std::span<const std::byte, kCqeBytes> in) {
  const std::byte* p = in.data();
  Cqe c;
  c.result = load_le64(p);
  c.sqhd = load_le16(p + 8);
  c.sqid = load_le16(p + 10);
  c.cid = load_le16(p + 12);
  c.status = Status::decode(load_le16(p + 14));
  return c;
}

}  // namespace nvmf::nvme
