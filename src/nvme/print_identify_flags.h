// What the bits of Identify fields mean, as `nvme id-ctrl -H` and `nvme id-ns -H` say it: each
// function writes the lines that follow its field. For the .cpp files of this room.
#pragma once

#include <cstdint>

#include "nvme/identify.h"
#include "nvme/print_lines.h"

namespace nvmf::nvme {

/// Lines in which a field may be followed by an explanation.
class Fields : public Lines {
 public:
  Fields(int width, bool human) : Lines(width), human_(human) {}

  using Lines::dec;
  using Lines::hex;
  template <class T>
  void dec(std::string_view name, T value, void (*explain)(Lines&, T)) {
    Lines::dec(name, value);
    if (human_) explain(*this, value);
  }
  template <class T>
  void hex(std::string_view name, T value, void (*explain)(Lines&, T)) {
    Lines::hex(name, value);
    if (human_) explain(*this, value);
  }
  [[nodiscard]] bool human() const { return human_; }

 private:
  bool human_;
};

// Identify Controller. Base 2.1 §5.1.13.2.1.
void explain_cmic(Lines& out, std::uint8_t cmic);
void explain_oaes(Lines& out, std::uint32_t oaes);
void explain_ctratt(Lines& out, std::uint32_t ctratt);
void explain_cntrltype(Lines& out, std::uint8_t cntrltype);
void explain_nvmsr(Lines& out, std::uint8_t nvmsr);
void explain_vwci(Lines& out, std::uint8_t vwci);
void explain_mec(Lines& out, std::uint8_t mec);
void explain_oacs(Lines& out, std::uint16_t oacs);
void explain_frmw(Lines& out, std::uint8_t frmw);
void explain_lpa(Lines& out, std::uint8_t lpa);
void explain_elpe(Lines& out, std::uint8_t elpe);
void explain_npss(Lines& out, std::uint8_t npss);
void explain_avscc(Lines& out, std::uint8_t avscc);
void explain_apsta(Lines& out, std::uint8_t apsta);
void explain_wctemp(Lines& out, std::uint16_t kelvins);
void explain_cctemp(Lines& out, std::uint16_t kelvins);
void explain_mntmt(Lines& out, std::uint16_t kelvins);
void explain_mxtmt(Lines& out, std::uint16_t kelvins);
void explain_tnvmcap(Lines& out, const Uint128& bytes);
void explain_unvmcap(Lines& out, const Uint128& bytes);
void explain_rpmbs(Lines& out, std::uint32_t rpmbs);
void explain_hctma(Lines& out, std::uint16_t hctma);
void explain_sanicap(Lines& out, std::uint32_t sanicap);
void explain_anacap(Lines& out, std::uint8_t anacap);
void explain_sqes(Lines& out, std::uint8_t sqes);
void explain_cqes(Lines& out, std::uint8_t cqes);
void explain_oncs(Lines& out, std::uint16_t oncs);
void explain_fuses(Lines& out, std::uint16_t fuses);
void explain_fna(Lines& out, std::uint8_t fna);
void explain_vwc(Lines& out, std::uint8_t vwc);
void explain_icsvscc(Lines& out, std::uint8_t icsvscc);
void explain_nwpc(Lines& out, std::uint8_t nwpc);
void explain_ocfs(Lines& out, std::uint16_t ocfs);
void explain_sgls(Lines& out, std::uint32_t sgls);
void explain_fcatt(Lines& out, std::uint8_t fcatt);
void explain_ofcs(Lines& out, std::uint16_t ofcs);

// Identify Namespace. NVM 1.2 §4.1.5.1; Base 2.1 §5.1.13.2.8.
void explain_nsfeat(Lines& out, std::uint8_t nsfeat);
void explain_independent_nsfeat(Lines& out, std::uint8_t nsfeat);
void explain_flbas(Lines& out, std::uint8_t flbas);
void explain_mc(Lines& out, std::uint8_t mc);
void explain_dpc(Lines& out, std::uint8_t dpc);
void explain_dps(Lines& out, std::uint8_t dps);
void explain_nmic(Lines& out, std::uint8_t nmic);
void explain_rescap(Lines& out, std::uint8_t rescap);
void explain_fpi(Lines& out, std::uint8_t fpi);
void explain_dlfeat(Lines& out, std::uint8_t dlfeat);
void explain_nsattr(Lines& out, std::uint8_t nsattr);
void explain_nstat(Lines& out, std::uint8_t nstat);
void explain_pic(Lines& out, std::uint8_t pic);

}  // namespace nvmf::nvme
